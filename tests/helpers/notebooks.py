"""What a notebook is made of."""


def code_cells(notebook):
    """The cells of code, in their order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
