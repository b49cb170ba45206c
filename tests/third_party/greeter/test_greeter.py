from greeter import greet

from gglib.testing import MockScript


def test_greeting_is_what_the_model_says(gglib_gateway, mock_runner):
    gglib_gateway.add_model("qwen")
    mock_runner.script("qwen", MockScript(reply="Hello, Ada!"))
    assert greet(gglib_gateway.base_url, "Ada") == "Hello, Ada!"
    assert mock_runner.called == ["start qwen"]
