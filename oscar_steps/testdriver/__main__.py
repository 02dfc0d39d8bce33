"""`python -m oscar_steps.testdriver`: the same as `oscar-testdriver`."""

from oscar_steps.testdriver.cli.main import main

if __name__ == "__main__":
    main()
