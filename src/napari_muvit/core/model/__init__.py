"""The network: MuViT encoder, decoders, losses, checkpoints."""
