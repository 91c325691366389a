def equal_arms(n):
    return ""
