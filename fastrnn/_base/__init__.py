"""What every part of fastrnn stands on: checks of arguments, dispatch, careful reading, figures, progress."""
