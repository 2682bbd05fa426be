"""The P-Decoder: a frozen backbone's features in, annotations of every task out."""
