"""The published towers of a config, as they are before any training."""

import dataclasses

from lit_jax import config as options
from lit_jax.data.collection import fingerprint
from lit_jax.embedding.about import About
from lit_jax.embedding.trained import Trained
from lit_jax.models import building
from lit_jax.settling import open_tokenizer, settle_published
from lit_jax.text.captions import TEMPLATE


def published(config: options.Config) -> Trained:
    """The published towers of a config, before any training: to look at photos with CLIP, SigLIP or LiT as they are.

    Args:
        config: checked by `lit_jax.config.load`, with weights of both towers, and `model.weights` for what joins them.

    Raises:
        UserError: as `building.initial_params`; a part that would be drawn at random; no tokenizer anywhere.
    """
    settled, data = settle_published(config)
    tokenizer = open_tokenizer(settled.data.tokenizer, data)
    # Also of a config that trains from a store, all of the model is wanted.
    towers = dataclasses.replace(settled.towers, from_store=False)
    model = building.build_model(towers, tokenizer)
    params, reports = building.initial_params(towers, model)
    about = About(
        config=options.flattened(settled),
        position=0,
        locked={name: found.digest for name, found in reports.items()},
        fingerprint=fingerprint(data) if data else "",
        templates=list(data.templates) if data else [TEMPLATE],
        drop_repeats=data.drop_repeats if data else False,
        class_table=data.class_table.read_text(encoding="utf-8") if data else "",
        train_classes=[],
        prompt_templates=list(settled.templates),
        hosts=1,
        tokenizer=tokenizer.model_bytes,
    )
    return Trained(about, settled, 0, model, tokenizer, params)
