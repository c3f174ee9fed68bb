"""What a model says where later tokens do not see some earlier ones: an eager forward over the whole text."""

import torch

FAMILIES = {
    "llama": {},
    "qwen3": {},
    "gpt2": {"n_positions": 512, "n_embd": 32, "n_layer": 4, "n_head": 4},
    "gemma3_text": {"sliding_window": 8, "query_pre_attn_scalar": 8},
}


def eager_logits(model, ids, hidden):
    """Logits of the whole sequence and its attention, where no later token sees the hidden ones."""
    length = len(ids)
    allowed_TT = torch.ones(length, length, dtype=torch.bool).tril()
    for place in hidden:
        allowed_TT[place + 1 :, place] = False
    mask_TT = torch.zeros(length, length).masked_fill(~allowed_TT, torch.finfo(torch.float32).min)
    mask = mask_TT[None, None]
    if getattr(model.config, "layer_types", None) and "sliding_attention" in model.config.layer_types:
        index = torch.arange(length)
        near_TT = index[:, None] - index < model.config.sliding_window
        narrow = mask.masked_fill(~near_TT, torch.finfo(torch.float32).min)
        mask = {"full_attention": mask, "sliding_attention": narrow}
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(torch.tensor([ids]), attention_mask=mask, output_attentions=True, use_cache=False)
    model.set_attn_implementation(implementation)
    return output.logits[0], torch.stack([layer[0] for layer in output.attentions])
