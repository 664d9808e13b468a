"""Train a tuned lens and save it beside the model, in one go: what the page and the command line do."""

from dataclasses import replace

from mi_core.analyses.tuned_lens_inputs import TunedLensSaveInputs
from mi_core.analyses.tuned_lens_result import TunedLensTrainResult
from mi_core.analyses.tuned_lens_store import check_free, save_lens
from mi_core.analyses.tuned_lens_training import OnTrainStep, tuned_lens_train
from mi_core.model.model import LoadedModel


def tuned_lens_train_and_save(
    model: LoadedModel, inputs: TunedLensSaveInputs, *, on_step: OnTrainStep | None = None
) -> TunedLensTrainResult:
    """Train a lens, and save what came out (also when stopped half-way) as `tuned_lens_store` says.

    Args:
        model: a loaded model.
        inputs: training and name.
        on_step: see `tuned_lens_train`.

    Returns:
        The result of the training, with `saved_to`.

    Raises:
        InputError: the name is taken or cannot be one, which is told before the training; or see
            `tuned_lens_train`.
    """
    check_free(model, inputs.save_as, replace=inputs.replace)
    result = tuned_lens_train(model, inputs.training, on_step=on_step)
    if result.lens is None or (result.cancelled and not len(result.loss)):
        return result  # stopped before its first step: there is nothing that is not there already
    lens = result.lens.renamed(inputs.save_as)
    saved = save_lens(model, lens, replace=inputs.replace)
    return replace(result, lens=lens, saved_to=str(saved))
