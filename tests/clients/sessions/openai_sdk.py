"""openai-python: every way to name a conversation and its objects."""

import flow
import openai_objects
import openai_turns

if __name__ == "__main__":
    flow.run(openai_turns.FLOWS + openai_objects.FLOWS)
