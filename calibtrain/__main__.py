"""`python -m calibtrain` is `calibtrain`."""

from calibtrain.cli import main

if __name__ == "__main__":
    main()
