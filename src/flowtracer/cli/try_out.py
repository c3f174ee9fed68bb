"""`flowtracer try`: one question and one response, from the command line to a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flowtracer.cli.console import AsJson, errors, print_json, say_written


def try_out(
    question: Annotated[str, typer.Argument(help="What is asked.")],
    response: Annotated[str | None, typer.Argument(help="What was answered; the model answers by itself.")] = None,
    model: Annotated[
        str, typer.Option(help='Hub id, folder, .gguf file, "nano", or "smollm2", which needs no hub.')
    ] = "smollm2",
    answer: Annotated[str | None, typer.Option(help="The final answer as the response has it; located.")] = None,
    capacity: Annotated[str, typer.Option(help="An edge is attention, value, gradient or alti.")] = "attention",
    graph: Annotated[str, typer.Option(help="On tokens, or layered: (token, layer).")] = "tokens",
    image: Annotated[list[Path] | None, typer.Option(help="A picture that is shown; may be given again.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response of the model.")] = 256,
    html: Annotated[Path | None, typer.Option(help="Write the page to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Trace one question and its response, and say what carried the answer."""
    from flowtracer.model.load import load_with_processor
    from flowtracer.report.explain import explain, explanation
    from flowtracer.text.encoding import with_template
    from flowtracer.tracing.tracer import Tracer

    with errors.status(f"loading {model}"):
        tracer = Tracer(*load_with_processor(model), capacity=capacity, graph=graph)
    prompt: Any = question
    if image:
        parts = [*({"type": "image", "image": file} for file in image), {"type": "text", "text": question}]
        prompt = [{"role": "user", "content": parts}]
    elif getattr(with_template(tracer.tokenizer, tracer.processor), "chat_template", None):
        prompt = [{"role": "user", "content": question}]
    if response is None:
        with errors.status("answering"):
            answered = _answered_shown if image else _answered
            response = answered(tracer, prompt, max_new_tokens)
    trace = tracer.trace(prompt, response, answer)
    if as_json:
        print_json(explanation(trace))
    else:
        typer.echo(explain(trace), nl=False)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        trace.to_html(html)
        say_written(html)


def _answered(tracer: Any, prompt: Any, max_new_tokens: int) -> str:
    """What the model answers, greedily."""
    from flowtracer.model.generate import Sampling, sample

    how = Sampling(max_new_tokens=max_new_tokens)
    replies = next(sample(tracer.model, tracer.tokenizer, [prompt], [""], sampling=how, batch_size=1))
    return replies[0].text


def _answered_shown(tracer: Any, prompt: Any, max_new_tokens: int) -> str:
    """What a model answers to a prompt with images, greedily."""
    import torch

    from flowtracer.text.encoding import without_end
    from flowtracer.trace.trace import Rollout
    from flowtracer.tracing.shown import encode_shown

    asked = Rollout(prompt=prompt, response="")
    text, shown = encode_shown(tracer.model, tracer.tokenizer, tracer.processor, asked)
    ids_1P = torch.from_numpy(text.token_ids)[None].to(tracer.model.device)
    given = shown.inputs(tracer.model, ids_1P.shape[1])
    how = {"do_sample": False, "max_new_tokens": max_new_tokens}
    said_1T = tracer.model.generate(input_ids=ids_1P, attention_mask=torch.ones_like(ids_1P), **given, **how)
    new = said_1T[0, ids_1P.shape[1] :].tolist()
    return str(tracer.tokenizer.decode(without_end(tracer.tokenizer, new)))
