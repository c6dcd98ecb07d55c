"""Models inspected without their weights: their anatomy, its proof, and the catalogue of all model types."""
