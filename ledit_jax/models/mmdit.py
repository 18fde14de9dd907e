"""MMDiT and LEMMDiT: text to image, by blocks in which the tokens of a text and of an image attend jointly.

The network is that of REPA's text-to-image runs (sihyun-yu/REPA, models/mmdit.py), a smaller Stable Diffusion 3
(arXiv 2403.03206): adaLN is told the time alone, text is an encoder's states of all tokens, padding included, through
one Linear. LEMMDiT (arXiv 2503.04344v3, section 4.1) is LEDiT's idea in it.

Of LEMMDiT no code exists, and the paper does not say the following; these are our readings. The scan hides pairs of
image tokens alone: text sees everything and is seen by every image token. Every other block is causal, as in LEDiT,
and the last block counts as one of them. The convolution follows patchify, on image tokens. T' is in the process's own
time. Attention scaling counts image tokens, and scales all logits. Rotary positions turn image tokens; text is not
turned. Weights start as DiT's do, with gates of zero, where REPA leaves PyTorch's defaults.

B batch, H W height and width in latent cells, h w token grid, T image tokens, S text tokens, E width of a text state,
D width, N heads, K head dim.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ledit_jax.config import ModelConfig, attention_kinds
from ledit_jax.models.attention import Attention, AttentionContext
from ledit_jax.models.backbone import Backbone
from ledit_jax.models.block import Block
from ledit_jax.models.embed import Times
from ledit_jax.models.linear import Linear
from ledit_jax.models.norm import layer_norm, modulate
from ledit_jax.models.positions import NoPosition
from ledit_jax.models.stack import Segment, rematerialised, run_stack, stack_blocks
from ledit_jax.parallel.placement import split_batch

_xavier = nnx.initializers.xavier_uniform()
_zeros = nnx.initializers.zeros_init()

Streams = tuple[Float[Array, "B S D"], Float[Array, "B T D"]]
"""(text, image)."""


class LastText(nnx.Module):
    """The text's share of the last block, which ends with its queries, keys and values: nobody reads its output."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.eps, self.dtype = config.norm_eps, jnp.dtype(config.dtype)
        self.attn = Attention(config, rngs, has_proj=False)
        self.adaln = Linear(config, config.width, 2 * config.width, kernel_init=_zeros, rngs=rngs)

    def enter(self, x: Float[Array, "B S D"], condition: Float[Array, "B D"]) -> tuple[Float[Array, "B S D"], None]:
        """As `Block.enter`."""
        shift, scale = jnp.split(self.adaln(condition), 2, axis=-1)
        return modulate(layer_norm(x, self.eps), shift, scale).astype(self.dtype), None


class JointBlock(nnx.Module):
    """Two blocks, of text and of image, with one attention over the tokens of both."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, is_last: bool = False):
        self.is_last = is_last
        self.text = LastText(config, rngs) if is_last else Block(config, rngs)
        self.image = Block(config, rngs)

    def __call__(
        self, streams: Streams, condition: Float[Array, "B D"], context: AttentionContext, scan: str
    ) -> Streams:
        """`condition` has been through SiLU. The last block hands text on as it came."""
        text, image = streams
        h_text, text_rest = self.text.enter(text, condition)
        h_image, image_rest = self.image.enter(image, condition)
        heads = zip(self.text.attn.heads(h_text, None), self.image.attn.heads(h_image, context.rotary), strict=True)
        q, k, v = (jnp.concatenate(pair, axis=1) for pair in heads)  # B S+T N K
        mixed = self.image.attn.mix(q, k, v, context, scan)
        of_text, of_image = jnp.split(mixed, [text.shape[1]], axis=1)
        image = self.image.leave(image, self.image.attn.proj(of_image), image_rest)
        return text if self.is_last else self.text.leave(text, self.text.attn.proj(of_text), text_rest), image


class MMDiT(Backbone):
    """The network: noisy latents, times and a text's states in; what the process predicts out.

    `blocks` are all joint blocks but the last, stacked as LEDiT's are; `last_block` is on its own.
    """

    def __init__(
        self,
        config: ModelConfig,
        text_shape: tuple[int, int],
        in_channels: int,
        out_channels: int,
        position: NoPosition,
        rngs: nnx.Rngs,
        causal_times: tuple[float, float] | None = None,
        trained_tokens: int | None = None,
        in_place: bool = False,
    ):
        """text_shape: (S, E). The rest as for `Backbone`."""
        self.text_shape = text_shape
        super().__init__(config, in_channels, out_channels, position, rngs, causal_times, trained_tokens, in_place)

    def init_condition(self, rngs: nnx.Rngs) -> None:
        self.text_embed = Linear(self.config, self.text_shape[1], self.config.width, kernel_init=_xavier, rngs=rngs)
        self.empty_caption = nnx.Param(jnp.zeros(self.text_shape))

    def init_blocks(self, rngs: nnx.Rngs) -> None:
        config = self.config
        self.blocks = stack_blocks(lambda rngs: JointBlock(config, rngs), config.depth - 1, rngs)
        self.last_block = JointBlock(config, rngs, is_last=True)

    def __call__(
        self,
        x: Float[Array, "B H W C"],
        times: Times,
        condition: dict[str, Array],
        dilation: int = 1,
        key: jax.Array | None = None,
    ) -> Float[Array, "B H W out"]:
        """float32. condition: see `TextStates`. dilation: of the convolution, more than 1 in training only. key: for
        positions that training draws."""
        x = self.embed(x, dilation)  # B h w D
        B, h, w, D = x.shape
        text = self.embed_text(condition["states"], condition["given"])  # B S D
        told = split_batch(jax.nn.silu(self.timestep_embed(times)))  # B D
        context = self.context((h, w), times, text.shape[1], key)
        _, x = self.run_blocks((text, x.reshape(B, h * w, D)), told, context)  # B T D
        return self.pixels(x, told, (h, w))

    def embed_text(self, states: Float[Array, "B S E"], given: Bool[Array, " B"]) -> Float[Array, "B S D"]:
        """The text's tokens; the empty caption's, which is never trained, where no text is given."""
        empty = jax.lax.stop_gradient(self.empty_caption[...])
        states = jnp.where(given[:, None, None], states, empty)
        return split_batch(self.text_embed(states).astype(self.residual))

    def run_blocks(self, streams: Streams, condition: Float[Array, "B D"], context: AttentionContext) -> Streams:
        """What all blocks make of text and image; the last block leaves text alone."""
        config = self.config
        graphdef, layers = nnx.split(self.blocks)
        last_graphdef, last_layer = nnx.split(self.last_block)

        def run_block(kind, layer, streams, condition, graphdef=graphdef):
            scan = config.scan if kind == "ca" else "none"
            return nnx.merge(graphdef, layer)(streams, condition, context, scan), None

        def run_last(kind, layer, streams, condition):
            return run_block(kind, layer, streams, condition, last_graphdef)

        segments, last_kind = all_but_last(attention_kinds(config.block_order, config.depth))
        streams, _ = run_stack(run_block, segments, layers, streams, condition, config, in_place=self.in_place)
        run_last = rematerialised(run_last, config, is_scanned=False)
        streams, _ = run_last(last_kind, None, last_layer, streams, condition)
        return streams


def all_but_last(segments: tuple[Segment, ...]) -> tuple[tuple[Segment, ...], str]:
    """(segments of all blocks but the last, the last one's attention kind)."""
    *before, (unit, repeats) = segments
    rest = (unit, repeats - 1), (unit[:-1], 1)
    return (*before, *(segment for segment in rest if all(segment))), unit[-1]
