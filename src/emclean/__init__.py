"""emclean: reliable detectors and classifiers from cheap, noisy labels of electron-microscopy images."""

__version__ = "0.1.0"
