"""The building blocks of the P-Decoder: a pixel decoder over all strides and a transformer over label queries."""
