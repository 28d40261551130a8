"""The decoder, its attention and loss, the folder it is saved in."""
