"""What goes on inside a model, pictures, the notebook."""
