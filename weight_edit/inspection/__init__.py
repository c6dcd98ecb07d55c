"""Inspection of models without weights: anatomy, proof, and the catalogue of model types."""
