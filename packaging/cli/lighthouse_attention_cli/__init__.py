"""The program `lighthouse`, for the libraries of the torch that is installed."""
