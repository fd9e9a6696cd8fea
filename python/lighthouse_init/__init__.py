"""lighthouse-init: `lighthouse init` under the name of a command of the package."""
