"""What the room gives, for type checkers and editors; `__init__.py` is lazy."""

from calibtrain.library.analysis_results import EntropyAnalysis as EntropyAnalysis
from calibtrain.library.analysis_results import FittedLookahead as FittedLookahead
from calibtrain.library.analysis_results import MemoryAnalysis as MemoryAnalysis
from calibtrain.library.analysis_results import Traced as Traced
from calibtrain.library.analysis_results import TypicalityAnalysis as TypicalityAnalysis
from calibtrain.library.configurations import Overrides as Overrides
from calibtrain.library.configurations import load_config as load_config
from calibtrain.library.configurations import load_study as load_study
from calibtrain.library.generated import Generated as Generated
from calibtrain.library.heads import Head as Head
from calibtrain.library.heads import HeadComparison as HeadComparison
from calibtrain.library.progress import Progress as Progress
from calibtrain.library.result import EvaluationResult as EvaluationResult
from calibtrain.library.result import Figure as Figure
from calibtrain.library.result import measure as measure
from calibtrain.library.run import Run as Run
from calibtrain.library.study import Study as Study
from calibtrain.library.table import Table as Table
from calibtrain.library.training import ablate as ablate
from calibtrain.library.training import finetune as finetune
from calibtrain.library.training import open_run as open_run
from calibtrain.library.training import open_study as open_study
from calibtrain.library.training import train as train
