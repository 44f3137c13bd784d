"""The kernels for a GPU, in Triton, each beside its CPU twin of the same name in the folder above.

Nobody imports this folder on a machine without a GPU, but for tests and tables: with TRITON_INTERPRET=1 the kernels run
on CPU tensors, and `launch.py` compiles them for chips that are not here.
"""
