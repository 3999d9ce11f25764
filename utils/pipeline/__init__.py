"""The sequence of notebooks through papermill, and the kernel that each of them runs in."""
