"""What each stage of a network is for, in a line."""

from __future__ import annotations

import re

PURPOSES = (
    (r"backbone\.((bottom_up|body)\.)?(tpm\.stem|smb\d\.stem_block|stem.*)", "the first edges and colours"),
    (
        r"backbone\.((bottom_up|body)\.)?(tpm|smb\d)\.layer\d+",
        "widen, look around, project: reach grows, place is lost",
    ),
    (
        r"backbone\.((bottom_up|body)\.)?res\d\.\d+",
        "a bottleneck: narrow, look around, widen; reach grows, place is lost",
    ),
    (r"backbone\.features\.\d+", "widen, look around, project: reach grows, place is lost"),
    (r"backbone\.ppa", "all levels averaged to one coarse grid and stacked: the tokens"),
    (r"backbone\.trans.*", "attention: every token hears from all others"),
    (r"mask_decoder\.lateral\.\d", "every level to the same number of channels"),
    (r"mask_decoder\.enhancer\.\d", "X6 speaks: a gate that multiplies, a shift that is added"),
    (r"mask_decoder\.top_down\.\d", "coarse to fine: meaning reaches places"),
    (r"mask_decoder\.bottom_up\.\d", "fine to coarse: places reach meaning"),
    (r"mask_decoder\.output\.\d", "coarse to fine again, to the mask features X_mask"),
    (r"(mask_decoder|encoder)\.fpn_laterals\.\d", "every level to the same number of channels"),
    (r"(mask_decoder|encoder)\.ppm.*", "averages of the whole picture, fused with the coarsest level"),
    (r"(mask_decoder|encoder)\.fpn_outputs\.\d", "a level smoothed after the coarser one was added"),
    (r"(mask_decoder|encoder)\.fusion", "all levels at one size, mixed"),
    (r"mask_decoder|encoder", "levels resized, added and joined"),
    (r"(mask_decoder|decoder\.mask_branch)\.mask_convs.*", "convolutions on the way to the mask features"),
    (r"(mask_decoder|decoder\.mask_branch)\.projection", "the mask features themselves"),
    (r"instance_decoder\.initial_queries", "the learned queries, once for each picture"),
    (r"instance_decoder\.global_proj", "X6 to the queries' width: X_G"),
    (r"instance_decoder\.global_decoder", "queries look at X_G: which objects are there?"),
    (r"instance_decoder\.local_features", "the largest number of every patch of X_mask: X_L"),
    (r"instance_decoder\.local_decoder", "queries look at X_L: what are they like, exactly?"),
    (r"instance_decoder\.class_head|decoder\.inst_branch\.cls_score", "which class, a logit each"),
    (r".*\.objectness(_head)?", "whether there is an object at all"),
    (r"instance_decoder\.kernel_head|decoder\.inst_branch\.mask_kernel", "a kernel that finds its pixels"),
    (r"decoder\.coordinates", "two channels that say where: x and y"),
    (r"decoder\.inst_branch\.inst_convs", "convolutions on the way to the activation maps"),
    (r"decoder\.inst_branch\.iam_conv", "activation maps: where each instance is looked for"),
    (r"decoder\.inst_branch(\.fc)?", "features summed under each activation map"),
    (r"fpn\.lat_layers\.\d", "every level to the same number of channels"),
    (r"fpn\.pred_layers\.\d", "a level smoothed after the coarser one was added"),
    (r"fpn\.downsample_layers\.\d", "coarser levels, for larger objects"),
    (r"fpn", "the coarser level added to each"),
    (r"proto_net.*", "prototypes: masks of parts, which sums make whole"),
    (r"prediction_layers.*", "for every prior box: which class, how it changes, which sum of prototypes"),
    (r"backbone\.fpn\.inner_blocks.*", "every level to the same number of channels"),
    (r"backbone\.fpn\.layer_blocks.*", "a level smoothed after the coarser one was added"),
    (r"backbone\.fpn", "the coarser level added to each"),
    (r"rpn\.head.*", "for every anchor: whether there is an object, and how the anchor changes"),
    (r"backbone\.fpn_lateral\d", "every level to the same number of channels"),
    (r"backbone\.fpn_output\d", "a level smoothed after the coarser one was added"),
    (r"backbone\.top_block.*", "coarser levels, for larger objects"),
    (r"backbone", "the coarser level added to each"),
    (r"proposal_generator.*", "at every location: which class, which box, how near its middle"),
    (r"controller", "at every location: the layers of a network that finds its mask"),
    (r"mask_branch.*", "levels at 1/8, summed: the mask features"),
    (r"neck\.lateral_convs\.\d", "every level to the same number of channels"),
    (r"neck", "the coarser level added to each"),
    (r"neck\.fpn_convs\.\d", "a level smoothed after the coarser one was added"),
    (r"bbox_head\.(kernel_convs|solo_kernel).*", "a kernel for every cell of a grid"),
    (r"bbox_head\.(cate_convs|solo_cate).*", "which class, for every cell of a grid"),
    (r"bbox_head", "levels resized to grids, which know where they are"),
    (r"mask_feat_head.*", "all levels at 1/4, summed: the mask features"),
    (r"(decoder\.)?masks", "M = K · X_mask: every kernel meets every cell"),
)
"""Pattern of a stage's path → what it is for; the first that fits all of it."""


def purpose(stage: str) -> str:
    """Return what a stage is for, empty for an unknown one.

    Examples
    --------
    >>> purpose("masks")
    'M = K · X_mask: every kernel meets every cell'
    """
    return next((words for pattern, words in PURPOSES if re.fullmatch(pattern, stage)), "")
