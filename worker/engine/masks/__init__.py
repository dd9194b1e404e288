"""Masks of ones and zeros over weights: as files, and drawn at random to find one that does least harm."""
