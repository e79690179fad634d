"""Everything kept outside the process: tables, label files, Label Studio, MLflow."""
