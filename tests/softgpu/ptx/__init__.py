"""PTX as data: the text, basic blocks, forms and types, and where addresses come from."""
