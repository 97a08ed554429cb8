"""Batchscope's architecture as its peers' users would write it."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class Classifier(nn.Module):
    """Encoder, masked mean over the tokens, one linear layer, and the loss."""

    accepts_loss_kwargs = False
    """HF Trainer then divides the loss by the accumulation steps, as it must. It does not for transformers' own models,
    which take further keywords: their gradient comes out that many times too large."""

    def __init__(self, encoder: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean cross entropy and logits ``[N, C]`` of ids and mask ``[N, L]`` and labels ``[N]``."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        logits = self.head((hidden * mask).sum(1) / mask.sum(1))
        return {"loss": cross_entropy(logits, labels), "logits": logits}
