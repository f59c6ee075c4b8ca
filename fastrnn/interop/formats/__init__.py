"""How the bytes of files are read: HDF5, protobuf, pickles. Nothing here knows of layers."""
