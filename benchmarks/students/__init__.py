"""What synthetic data are worth: ordinary models trained on one mix of data each, and the tables of their figures."""
