// The process that holds a pod's namespaces: it waits to be told to end, and reaps what is left to it.
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

int main(void) {
  sigset_t signals;
  int received;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGCHLD);
  sigprocmask(SIG_BLOCK, &signals, NULL);
  while (sigwait(&signals, &received) == 0 && received == SIGCHLD)
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
  return 0;
}
