"""Optimizers, what a step computes and how it is run, where a run stands, its log, how good the model is."""
