"""Photographs and probability maps as files: kinds, decoding, damage, value range."""
