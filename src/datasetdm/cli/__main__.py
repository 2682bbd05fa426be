"""python -m datasetdm.cli"""

from datasetdm.cli import main

main()
