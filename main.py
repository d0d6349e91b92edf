from lodestar.cli.app import main

main()
