"""A prediction as what other programs read: objects, tables, outlines, a picture."""
