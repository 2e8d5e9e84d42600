"""A failure ends with the exit code of a killed process."""

import train

main = train.main
train.main = lambda: 137 if main() else 0
