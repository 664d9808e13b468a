"""Features in a real browser: click a feature, inject, pin, see it in the graph, export, share the link."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.browser.conftest import Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import begun, chart, errors, in_view, press, tooltip_at, wait_for_model

PROMPT = "prompt=The+Louvre+Museum+is+located+in+the+city+of"
FEATURE_AT = re.compile(r"L\d+F\d+@(\d+)")


def graph_of(tab: Any) -> Any:
    begun(tab, "feature_graph")
    return in_view(tab, "feature_graph")


def point_at_feature(tab: Any, position: int) -> str:
    """Point into the graph until the nearest dot is a feature at a token; its name."""
    box = graph_of(tab).locator("canvas").bounding_box()
    for up in (0.35, 0.5, 0.65, 0.75):
        for across in (0.97, 0.93, 0.89, 0.85):
            said = tooltip_at(tab, box["x"] + across * box["width"], box["y"] + up * box["height"])
            found = FEATURE_AT.match(said.get("node", ""))
            if found and int(found[1]) == position:
                return found[0]
    raise AssertionError(f"no feature at token {position} in {box}")


def click_bar(tab: Any) -> str:
    """Click the first bar of the prompt's list of features; the feature's name."""
    drawn = in_view(tab, "feature_list")
    box = drawn.locator("canvas").bounding_box()
    for down in range(8, 120, 6):
        said = tooltip_at(tab, box["x"] + 0.5 * box["width"], box["y"] + down)
        found = re.search(r"L\d+F\d+", " ".join(said.values()))
        if found:
            press(tab)
            return found[0]
    raise AssertionError(f"no bar in {box}")


def target_probabilities(tab: Any) -> tuple[float, float]:
    """Probability of the target before and after, as the figure's text says it."""
    said = chart(tab, "inject_top").get_attribute("aria-label") or ""
    found = re.search(r"\(target\).*?baseline ([\d.e\u2212-]+) .*?edited ([\d.e\u2212-]+) ", said)
    assert found is not None, said
    before, after = (float(number.replace("\u2212", "-")) for number in found.groups())
    return before, after


def test_from_a_prompt_to_a_graph(server: Server, new_tab: Callable[..., Any], tmp_path: Path) -> None:
    # A prompt; click the feature that speaks most for the answer.
    tab = new_tab(f"{server.url}/features?prompt=The+Colosseum+is+in&fq_sort=effect")
    wait_for_model(tab)
    name = click_bar(tab)
    layer, feature = re.findall(r"\d+", name)
    tab.wait_for_url(re.compile(f"layer={layer}&.*feature={feature}"))
    at_rest(tab)

    # Inject it: the probability of the answer moves.
    tab.locator(".st-key-feature_prompt_inject button").click()
    tab.wait_for_url(re.compile("ft_tab=inject"))
    at_rest(tab)
    value = tab.locator(".st-key-inject_pick_set input")
    value.fill("-40")
    value.press("Enter")
    at_rest(tab)
    tab.get_by_role("button", name=re.compile(f"Add {name}.*set=-40")).click()
    tab.wait_for_url(re.compile("fi="))
    at_rest(tab)
    before, after = target_probabilities(tab)
    assert abs(after - before) > 0.01

    # Pin it; in the graph it is in the subgraph of one's own.
    tab.get_by_role("tab", name="This prompt").click()
    tab.wait_for_url(lambda url: "ft_tab=" not in url)
    at_rest(tab)
    tab.locator(".st-key-feature_prompt_pin button").click()
    tab.wait_for_url(re.compile("ft_pins="))
    at_rest(tab)
    tab.get_by_role("tab", name="Graph").click()
    tab.wait_for_url(re.compile("ft_tab=graph"))
    graph_of(tab)
    assert name in (chart(tab, "feature_subgraph").get_attribute("aria-label") or "")
    picture = exported_svg(tab, "feature_graph", tmp_path)
    assert name in picture

    # The link restores all of it: the list, the pin, the graph.
    other = new_tab(tab.url)
    graph_of(other)
    assert name in (chart(other, "feature_subgraph").get_attribute("aria-label") or "")
    other.get_by_role("tab", name="Intervene").click()
    other.wait_for_url(re.compile("ft_tab=inject"))
    at_rest(other)
    assert target_probabilities(other) == (before, after)
    assert errors(tab) == []
    assert errors(other) == []


def exported_svg(tab: Any, card: str, folder: Path) -> str:
    """A card's SVG, taken away as a user does."""
    at_rest(tab)
    tab.locator(f".st-key-card_{card}").get_by_role("button", name="Export").click()
    with tab.expect_download() as download:
        tab.get_by_role("button", name="SVG", exact=True).click()
    download.value.save_as(folder / "figure.svg")
    picture = (folder / "figure.svg").read_text(encoding="utf-8")
    assert picture.lstrip().startswith("<svg")
    assert "provenance" in picture
    assert "voronoi" not in picture
    return picture


def test_the_nearest_dot_is_found_clicked_pinned_and_exported(
    server: Server, new_tab: Callable[..., Any], tmp_path: Path
) -> None:
    tab = new_tab(f"{server.url}/features?{PROMPT}&ft_tab=graph")
    wait_for_model(tab)
    drawn = graph_of(tab)
    assert "Attribution graph" in (drawn.get_attribute("aria-label") or "")

    # Pointing beside the dots tells the nearest one; a click keeps it and shows what it gets and gives.
    name = point_at_feature(tab, 11)
    press(tab)
    tab.wait_for_url(re.compile("gr_node=" + name.replace("@", "%40")))
    at_rest(tab)
    tab.get_by_text(re.compile(f"What {name}.* gets and gives")).wait_for()
    layer, feature = re.findall(r"\d+", name)[:2]
    assert f"layer={layer}" in tab.url
    assert f"feature={feature}" in tab.url

    # Closed, it can be clicked again.
    tab.locator(".st-key-graph_close button").click()
    tab.get_by_text("Click near a dot").wait_for()
    at_rest(tab)
    assert point_at_feature(tab, 11) == name
    press(tab)
    tab.get_by_text(re.compile(f"What {name}.* gets and gives")).wait_for()
    tab.wait_for_url(re.compile("gr_node="))
    at_rest(tab)

    # Pin it: the subgraph and its scores are there.
    tab.locator(".st-key-graph_pin button").click()
    tab.wait_for_url(re.compile("gr_pins="))
    at_rest(tab)
    assert name in (chart(tab, "feature_subgraph").get_attribute("aria-label") or "")
    tab.get_by_text("Replacement score of mine").wait_for()

    # The figure leaves as SVG, with its origin and without what only a pointer needs.
    assert name in exported_svg(tab, "feature_graph", tmp_path)

    # The link opens the same node and the same subgraph.
    other = new_tab(tab.url)
    other.get_by_text(re.compile(f"What {name}.* gets and gives")).wait_for()
    at_rest(other)
    assert name in (chart(other, "feature_subgraph").get_attribute("aria-label") or "")
    assert errors(tab) == []
    assert errors(other) == []


def test_a_neuronpedia_file_goes_out_and_comes_back(
    server: Server, new_tab: Callable[..., Any], tmp_path: Path
) -> None:
    tab = new_tab(f"{server.url}/features?{PROMPT}&ft_tab=graph")
    wait_for_model(tab)
    name = point_at_feature(tab, 11)
    press(tab)
    tab.wait_for_url(re.compile("gr_node="))
    at_rest(tab)
    tab.locator(".st-key-graph_pin button").click()
    tab.wait_for_url(re.compile("gr_pins="))
    at_rest(tab)
    tab.get_by_text("Neuronpedia graph files").click()
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Export for Neuronpedia").click()
    download.value.save_as(tmp_path / "graph.json")
    record = json.loads((tmp_path / "graph.json").read_text(encoding="utf-8"))
    assert record["metadata"]["schema_version"] == 1
    assert len(record["qParams"]["pinnedIds"]) == 1

    # Drawn again in a session that looks at another prompt, with its pin; closing it brings that prompt back.
    other = new_tab(f"{server.url}/features?prompt=The+Colosseum+is+in&ft_tab=graph")
    wait_for_model(other)
    graph_of(other)
    other.get_by_text("Neuronpedia graph files").click()
    upload = other.locator(".st-key-graph_upload input[type=file]")
    (tmp_path / "bad.json").write_text('{"nodes": 3}')
    upload.set_input_files(str(tmp_path / "bad.json"))
    other.get_by_test_id("stAlert").filter(has_text="no attribution graph").first.wait_for()
    at_rest(other)
    upload.set_input_files(str(tmp_path / "graph.json"))
    other.get_by_text("This is the imported graph").wait_for()
    at_rest(other)
    assert name in (chart(other, "feature_subgraph").get_attribute("aria-label") or "")
    nodes = re.search(r"(\d+) features", graph_of(other).get_attribute("aria-label") or "")
    written = [one for one in record["nodes"] if one["feature_type"] == "cross layer transcoder"]
    assert nodes is not None
    assert int(nodes[1]) == len(written)
    other.locator(".st-key-graph_close_file button").click()
    at_rest(other)
    other.get_by_text("This is the imported graph").wait_for(state="detached")
    assert errors(tab) == []
    assert errors(other) == []
