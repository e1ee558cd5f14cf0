"""LEEPCallback from a LightningCLI configuration file.

python examples/cli.py fit --config examples/cli.yaml
"""

from digits import DigitClassifier, Digits
from pytorch_lightning.cli import LightningCLI

if __name__ == "__main__":
    LightningCLI(DigitClassifier, Digits)
