"""A model of the engine's time: what any order would take on any machine, without running it.

outcome = simulate(tree, prompts, order, outputs, step_time(model, machine), Engine(pool.tokens))
portfolio = simulate_portfolio(tree, prompts, lengths, orders, [blend], model, machine)
"""
