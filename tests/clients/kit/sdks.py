PYTHON = {}
NODE = {}
