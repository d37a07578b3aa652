"""What `import calibtrain` gives, for type checkers and editors; `__init__.py` is lazy."""

from calibtrain import ablation as ablation
from calibtrain import config as config
from calibtrain import data as data
from calibtrain import errors as errors
from calibtrain import evaluation as evaluation
from calibtrain import figures as figures
from calibtrain import library as library
from calibtrain import losses as losses
from calibtrain import metrics as metrics
from calibtrain import models as models
from calibtrain import parallel as parallel
from calibtrain import posthoc as posthoc
from calibtrain import readout as readout
from calibtrain import report as report
from calibtrain import runs as runs
from calibtrain import temperature as temperature
from calibtrain import training as training
from calibtrain.library.configurations import load_config as load_config
from calibtrain.library.configurations import load_study as load_study
from calibtrain.library.ensembles import ensemble as ensemble
from calibtrain.library.result import measure as measure
from calibtrain.library.training import ablate as ablate
from calibtrain.library.training import finetune as finetune
from calibtrain.library.training import open_run as open_run
from calibtrain.library.training import open_study as open_study
from calibtrain.library.training import train as train

__version__: str
