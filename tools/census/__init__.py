"""Does posenc read every model type of the installed transformers as that model computes itself?"""
