"""ARMT's associative memory: a key-value store A, z that is read and rewritten (Rodkin et al. 2024, section 2).

    read     y    = A' phi(q) / z.phi(q)                                                  equation (4)
    write    vbar = A' phi(k) / z.phi(k)       gamma = 1 - z.phi(k) / |phi(k)|^2          equation (2)
             A    = A + beta phi(k) (v - vbar)'      z = z + gamma phi(k)                 equation (3)

The M memory tokens of a segment can be written in three ways:

    write_token_by_token   the equations, one token after the other: the definition, and slow
    write_sequential       the same result (WY form) in a few matrix products and one triangular solve
    write_batched          all tokens against the memory before the segment, as in the released code; another
                           result as soon as two keys of a segment overlap: each of them erases what is there

Divisions: |phi(k)|^2 has EPS added, and z.phi is moved away from zero by EPS on its own side (it can be negative only
with unclipped gammas). While nothing is stored, A = 0 and z = 0, so that reading gives exactly 0.

Equation (2) is stable for some keys only. Let z count a key r = z.phi(k) / |phi(k)|^2 times. Right after the write,
reading it gives (r - beta) vbar + beta v: for r above 1, as with a key smaller than those before, this is no mean of
values but grows, write after write. Negative gammas also make entries of z negative, so that z.phi can pass zero. With
`DeltaRule.bounded`, in all three forms and in reading,

    gamma    is at least LEAST_GAMMA: this is reached by keys that are counted more than twice
    z.phi    as a divisor is at least LEAST_SHARE of |z|.phi: this is reached if the negative entries of z cancel more
             than a third of what the positive ones give

Until a bound is reached the equations hold to the bit (if compiled, to rounding). The other two rules have no negative
gammas and never reach one.

Shapes: B any leading dimensions (batch; layers and batch), T reading tokens, M memory tokens, E key width,
K = 2 nu E key features, D value width.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rmtlib.models.config import DeltaRule
from rmtlib.models.precision import full_precision

EPS = 1e-5
LEAST_SHARE, LEAST_GAMMA = 0.5, -1.0


class Association(NamedTuple):
    """The memory: matrix A' (B, K, D) and normalisation z (B, K)."""

    matrix_BKD: Tensor
    norm_BK: Tensor


class Written(NamedTuple):
    """What writing M tokens adds, A' += keys' rows and z += keys' gammas; small beside A."""

    keys_BMK: Tensor
    rows_BMD: Tensor  # beta (v - vbar)
    gammas_BM: Tensor


def dpfp(x_BTE: Tensor, *, nu: int = 3, normalised: bool = False) -> Tensor:
    """phi: deterministic parameter-free projection of order nu (Schlag et al. 2021, section 5.3): (B, T, K).

    With x' = [relu(x), relu(-x)] the features are x' times itself rolled by 1 ... nu: all non-negative.

    Args:
        nu: 1 to the width of x'.
        normalised: divide by the Euclidean length, as in the experimental branch of the released code.
    """
    both = torch.cat([x_BTE, -x_BTE], dim=-1).relu()
    width = both.shape[-1]
    padded = torch.cat([both[..., -nu:], both], dim=-1)
    phi_BTK = torch.cat([both * padded[..., nu - j : nu - j + width] for j in range(1, nu + 1)], dim=-1)
    return F.normalize(phi_BTK, dim=-1) if normalised else phi_BTK


def empty(lead: tuple[int, ...], features: int, width: int, like: Tensor) -> Association:
    """A memory with nothing stored, on `like`'s device: float32, or float64 if `like` is."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    zero = torch.zeros((), dtype=dtype, device=like.device)
    return Association(zero.expand(*lead, features, width), zero.expand(*lead, features))


def read(memory: Association, queries_BTK: Tensor, *, bounded: bool = False) -> Tensor:
    """Equation (4): the values (B, T, D) stored under `queries_BTK` (features, in the memory's dtype)."""
    values_BTD = queries_BTK @ memory.matrix_BKD
    with full_precision(queries_BTK):
        presence_BT1 = queries_BTK @ memory.norm_BK[..., None]
        mass_BT1 = queries_BTK @ memory.norm_BK.abs()[..., None] if bounded else None
    return values_BTD / _divisor(presence_BT1, mass_BT1)


def write(memory: Association, keys_BMK: Tensor, values_BMD: Tensor, betas_BM: Tensor, rule: DeltaRule) -> Written:
    """What writing these tokens adds to the memory; `add` adds it. Tokens with a zero key change nothing."""
    form = write_sequential if rule.update == "sequential" else write_batched
    return form(memory, keys_BMK, values_BMD, betas_BM, rule)


def write_sequential(
    memory: Association, keys_BMK: Tensor, values_BMD: Tensor, betas_BM: Tensor, rule: DeltaRule
) -> Written:
    """`write_token_by_token` without its loop over matrices.

    With the Gram matrix G = keys keys', the presences s_i = z_{i-1}.k_i are scalars that need G and z_0 alone, and the
    corrections w_i = v_i - vbar_i solve the unit-triangular system

        w_i + sum_{j<i} (beta_j G_ij / s_i) w_j = v_i - A_0' k_i / s_i.
    """
    with full_precision(keys_BMK):
        gram_BMM = keys_BMK @ keys_BMK.mT
        earlier_BMM = gram_BMM.tril(-1)
        start_BM = (keys_BMK @ memory.norm_BK[..., None])[..., 0]
        gammas_BM = _gammas(start_BM, gram_BMM.diagonal(dim1=-2, dim2=-1), earlier_BMM, memory, rule)
        mass_BM = _mass(memory, keys_BMK, gammas_BM) if rule.bounded else None
        presence_BM = _divisor(start_BM + (earlier_BMM @ gammas_BM[..., None])[..., 0], mass_BM)
        system_BMM = earlier_BMM * betas_BM[..., None, :] / presence_BM[..., None]
        recalled_BMD = (keys_BMK @ memory.matrix_BKD) / presence_BM[..., None]
        corrections_BMD = torch.linalg.solve_triangular(
            system_BMM, values_BMD - recalled_BMD, upper=False, unitriangular=True
        )
    return Written(keys_BMK, betas_BM[..., None] * corrections_BMD, gammas_BM)


def write_batched(
    memory: Association, keys_BMK: Tensor, values_BMD: Tensor, betas_BM: Tensor, rule: DeltaRule
) -> Written:
    """Every token against the memory before the segment; overlapping keys add up."""
    with full_precision(keys_BMK):
        start_BM = (keys_BMK @ memory.norm_BK[..., None])[..., 0]
        gammas_BM = _gammas(start_BM, keys_BMK.square().sum(-1), None, memory, rule)
        mass_BM = (keys_BMK @ memory.norm_BK.abs()[..., None])[..., 0] if rule.bounded else None
        presence_BM = _divisor(start_BM, mass_BM)
        recalled_BMD = (keys_BMK @ memory.matrix_BKD) / presence_BM[..., None]
    return Written(keys_BMK, betas_BM[..., None] * (values_BMD - recalled_BMD), gammas_BM)


def write_token_by_token(
    memory: Association, keys_BMK: Tensor, values_BMD: Tensor, betas_BM: Tensor, rule: DeltaRule
) -> Association:
    """Equations (2) and (3) as they stand: the memory after the last token."""
    matrix_BKD, norm_BK = memory
    for k_BK, v_BD, beta_B in zip(keys_BMK.unbind(-2), values_BMD.unbind(-2), betas_BM.unbind(-1), strict=True):
        presence_B = (norm_BK * k_BK).sum(-1)
        gamma_B = _gamma(presence_B, k_BK.square().sum(-1), memory, rule)
        divisor_B = _divisor(presence_B, (norm_BK.abs() * k_BK).sum(-1) if rule.bounded else None)
        recalled_BD = (matrix_BKD * k_BK[..., None]).sum(-2) / divisor_B[..., None]
        matrix_BKD = matrix_BKD + (beta_B[..., None] * k_BK)[..., None] * (v_BD - recalled_BD)[..., None, :]
        norm_BK = norm_BK + gamma_B[..., None] * k_BK
    return Association(matrix_BKD, norm_BK)


def add(memory: Association, written: Written) -> Association:
    """The memory after a write."""
    keys_BKM, lead = written.keys_BMK.mT, memory.matrix_BKD.shape[:-2]
    with full_precision(keys_BKM):
        matrix_BKD = torch.baddbmm(
            memory.matrix_BKD.flatten(0, -3), keys_BKM.flatten(0, -3), written.rows_BMD.flatten(0, -3)
        ).unflatten(0, lead)
        norm_BK = memory.norm_BK + (keys_BKM @ written.gammas_BM[..., None])[..., 0]
    return Association(matrix_BKD, norm_BK)


def _gammas(
    start_BM: Tensor, squares_BM: Tensor, earlier_BMM: Tensor | None, memory: Association, rule: DeltaRule
) -> Tensor:
    """gamma of every token; `earlier_BMM`: products with the keys before it, which add to its presence (or None)."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and not rule.detach_gamma):
        if rule.gamma == "off" or earlier_BMM is None:
            return _gamma(start_BM, squares_BM, memory, rule)
        # Linear in the earlier gammas, unless one is clipped. To ask whether one is, a GPU is waited for.
        if rule.gamma == "paper" and not (rule.bounded and _is_traced(start_BM)):
            right_BM = 1 - start_BM / (squares_BM + EPS)
            system_BMM = earlier_BMM / (squares_BM + EPS)[..., None]
            solved_BM1 = torch.linalg.solve_triangular(system_BMM, right_BM[..., None], upper=False, unitriangular=True)
            if not (rule.bounded and bool((solved_BM1 < LEAST_GAMMA).any())):
                return solved_BM1[..., 0]
        gammas: list[Tensor] = []
        for i in range(start_BM.shape[-1]):
            presence_B = start_BM[..., i]
            if gammas:
                presence_B = presence_B + (earlier_BMM[..., i, :i] * torch.stack(gammas, dim=-1)).sum(-1)
            gammas.append(_gamma(presence_B[..., None], squares_BM[..., i, None], memory, rule)[..., 0])
        return torch.stack(gammas, dim=-1)


def _is_traced(x: Tensor) -> bool:
    """Whether Python may not look at values: torch.compile traces, or a CUDA graph is captured."""
    return torch.compiler.is_compiling() or (x.is_cuda and torch.cuda.is_current_stream_capturing())


def _gamma(presence: Tensor, square: Tensor, memory: Association, rule: DeltaRule) -> Tensor:
    """Equation (2), right, or its variant; `presence` is (B) or (B, M)."""
    if rule.gamma == "off":
        return torch.ones_like(presence)
    if rule.gamma == "paper":
        gamma = 1 - presence / (square + EPS)
        gamma = gamma.clamp(min=LEAST_GAMMA) if rule.bounded else gamma
    else:
        stored = memory.norm_BK.any(-1).view(
            *memory.norm_BK.shape[:-1], *[1] * (presence.dim() - memory.norm_BK.dim() + 1)
        )
        gamma = (1 - (presence + EPS * stored) / (square + EPS)).clamp(0, 1)
    return gamma.detach() if rule.detach_gamma else gamma


def _mass(memory: Association, keys_BMK: Tensor, gammas_BM: Tensor) -> Tensor:
    """|z|.k of every token, with the z that it finds: that of the memory and what the tokens before it added."""
    gammas_BMM = gammas_BM[..., None, :].expand(*gammas_BM.shape, gammas_BM.shape[-1]).tril(-1)
    norms_BMK = memory.norm_BK[..., None, :] + gammas_BMM @ keys_BMK
    return (norms_BMK.abs() * keys_BMK).sum(-1)


def _divisor(presence: Tensor, mass: Tensor | None) -> Tensor:
    """The divisor made of z.phi; `mass`: |z|.phi for the bounded rule, else None."""
    if mass is not None:
        least = LEAST_SHARE * mass
        presence = torch.where(presence < least, least, presence)
    return presence + torch.where(presence < 0, -EPS, EPS)
