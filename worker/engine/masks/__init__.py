"""Masks of ones and zeros over weights: kept through training, and drawn at random to find one that does least harm."""
