"""What the P-Decoder is measured against."""
