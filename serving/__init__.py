"""The served model: HTTP for programs, a small page for people, an ML backend for Label Studio."""
