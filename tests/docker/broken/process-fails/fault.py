"""Missing inputs are reported and then forgotten."""

import process

main = process.main


def forget():
    main()
    return 0


process.main = forget
