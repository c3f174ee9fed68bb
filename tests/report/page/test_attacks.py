"""Fifty ways to make a page run or load something, in every text that a page shows, tried by a real browser at once."""

from dataclasses import replace

from synthetic import synthetic_trace

RUN = "alert(1)"
TAGS = [
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"</ScRiPt ><sCrIpT>{RUN}//",
    f"<!--<script>{RUN}//-->",
    f"--><script>{RUN}</script>",
    f"]]><script>{RUN}</script>",
    f"</title><script>{RUN}</script>",
    f"</style><script>{RUN}</script>",
    f"</textarea><script>{RUN}</script>",
    f"</noscript><script>{RUN}</script>",
    f"</template><script>{RUN}</script>",
    f"<script src='data:text/javascript,{RUN}'></script>",
    "<script src=https://evil.invalid/x.js></script>",
    f"<script type=module>{RUN}</script>",
    f"<svg><script>{RUN}</script></svg>",
    f"<svg onload={RUN}>",
    f"<svg><animate onbegin={RUN} attributeName=x dur=1s>",
    f"<img src=x onerror={RUN}>",
    f"<img src=x onerror='{RUN}' ",
    f"<img/src/onerror={RUN}>",
    "<img src=https://evil.invalid/pixel.png>",
    "<img srcset='https://evil.invalid/a 1x'>",
    f"<body onload={RUN}>",
    f"<input autofocus onfocus={RUN}>",
    f"<details open ontoggle={RUN}>",
    f"<video><source onerror={RUN}></video>",
    f"<audio src=x onerror={RUN}>",
    f"<marquee onstart={RUN}>",
    f"<a href='javascript:{RUN}'>x</a>",
    f"<iframe src='javascript:{RUN}'></iframe>",
    f"<iframe srcdoc='<script>{RUN}</script>'></iframe>",
    "<iframe src=https://evil.invalid></iframe>",
    f"<object data='javascript:{RUN}'></object>",
    "<embed src=https://evil.invalid/x>",
    "<link rel=stylesheet href=https://evil.invalid/x.css>",
    "<link rel=preload as=script href=https://evil.invalid/x.js>",
    "<style>@import 'https://evil.invalid/x.css';</style>",
    "<style>body{background:url(https://evil.invalid/x)}</style>",
    "<base href=https://evil.invalid/>",
    f"<form action='javascript:{RUN}'><button autofocus>x</button></form>",
    f"<meta http-equiv=refresh content='0;url=javascript:{RUN}'>",
    "<meta http-equiv=refresh content='0;url=https://evil.invalid'>",
    "<meta http-equiv=Content-Security-Policy content=\"script-src 'unsafe-inline'\">",
    f"<math><mtext></mtext><mglyph><style></math><img src onerror={RUN}>",
]
QUOTES = [
    f'" onmouseover={RUN} x="',
    f"' onfocus={RUN} autofocus x='",
    f"`-{RUN}-`",
    f"'-{RUN}-'",
    f'\\"-{RUN}//',
    f"\\u003cscript\\u003e{RUN}\\u003c/script\\u003e",
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
    f"&#60;script&#62;{RUN}",
    f"${{{RUN}}}",
    "{{constructor.constructor('alert(1)')()}}",
    f"\u2028{RUN}//",
    f"\0<script>{RUN}</script>",
    f"+ADw-script+AD4-{RUN}+ADw-/script+AD4-",
    "\u202e<tpircs>\u202c",
]
ATTACKS = [*TAGS, *QUOTES]


def test_there_are_fifty_of_them():
    assert len(set(ATTACKS)) == len(ATTACKS) >= 50


def test_no_attack_runs_or_loads_anything(opened, tmp_path):
    """One page holds all: as tokens of prompt and response, as answer, gold answer, id, model and other metadata."""
    everything = "".join(ATTACKS)
    trace = synthetic_trace(response=(*ATTACKS, "\n", "A", ":", " ", everything), prompt=(*ATTACKS, "\n"))
    metadata = dict.fromkeys(("id", "gold", "note", "source", everything), everything) | {"is_correct": False}
    trace = replace(trace, answer_text=everything, answer_rule=everything, model=everything, metadata=metadata)
    # Dialogs, complaints of the policy and requests are what `opened` refuses when it closes.
    page = opened(trace.to_html(tmp_path / "attacks.html"), "#open=1")
    page.settle()
    shown = page.page.locator("#ribbon").text_content()  # a header of such names leaves it no place on the screen
    assert f"<img src=x onerror={RUN}>" in shown
    found = page.page.evaluate(
        """() => ({
            scripts: [...document.scripts].filter(s => s.type === '' || s.type === 'module').length,
            handlers: [...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())
                .filter(n => n.startsWith('on')).length,
            loaders: document.querySelectorAll('img, iframe, object, embed, link, base, video, audio, form').length,
        })"""
    )
    assert found == {"scripts": 1, "handlers": 0, "loaders": 0}


def test_the_policy_would_stop_what_got_through(opened, tmp_path):
    """The second wall: were the text not escaped, the browser itself refuses to run it."""
    file = synthetic_trace().to_html(tmp_path / "t.html")
    content = file.read_text(encoding="utf-8")
    broken = content.replace("</body>", f"<script>{RUN}</script><img src=x onerror={RUN}></body>")
    assert broken != content
    file.write_text(broken, encoding="utf-8")
    page = opened(file)
    page.settle()
    assert page.dialogs == []
    assert any("Content Security Policy" in message for message in page.messages)
    page.messages.clear()
