"""alignet: align the similarity structure of vision models with people's (AligNet in PyTorch)."""
